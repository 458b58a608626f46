"""The command line: one small file a command, which parses, calls the library and prints.

Law of this room: nobody imports it, and nothing heavy is imported at the top of its files. A command
holds no logic that Python users would miss.
"""
