"""The state machine: incidents, policy, approvals, the effect ledger, the audit log, and the store beneath.

Each noun has a module; nothing is imported until one of them is.
"""
