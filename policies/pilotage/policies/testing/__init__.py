"""Tests of a policy bundle: its cases, its mutants, and the tools of its authors."""
