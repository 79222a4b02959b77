"""The service: configuration, command line, sources, pipeline, relay, scheduler, metrics, HTTP.

The thinnest room: it carries messages between the world and the pure cores of the others.
"""

__version__ = "0.1.0"
