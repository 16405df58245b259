"""Audit: which images does a model get right for the wrong reason, and how is it relieved of that?"""
