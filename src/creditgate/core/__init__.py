"""The pure part: amounts, catalog, customers, burn order, periods, decisions, journal. No I/O, no clock, no async."""
