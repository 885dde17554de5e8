"""Facts that read and actions that change, the hosts they work on, and what they say about them.

Each noun has a module; nothing is imported until one of them is.
"""
