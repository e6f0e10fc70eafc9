"""Lets the tests in every folder import the helpers that lie here, and takes the clock off hypothesis."""

from hypothesis import settings

settings.register_profile("equint", deadline=None)
settings.load_profile("equint")
