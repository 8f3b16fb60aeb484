"""The ports: what each kind of part must offer, what it may offer besides, and what holds where it does not.

Each port is a class in a file of its own. A part is a subclass of its port; the engine asks for nothing that the port
does not declare.
"""
