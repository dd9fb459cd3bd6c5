"""Spend a budget, yield drafts; one file for each paper."""
