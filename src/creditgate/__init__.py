"""creditgate is a metering sidecar: it answers whether a customer can afford a call, and takes the credits."""

__version__ = "0.1.0"
