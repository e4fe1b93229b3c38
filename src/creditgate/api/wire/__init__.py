"""The JSON of the Autumn API, both ways: bodies to requests, decisions and records to answers. Pure, no Starlette."""
