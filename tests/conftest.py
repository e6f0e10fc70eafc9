"""Lets the tests in every folder import the helpers that lie here, and sets hypothesis up.

No deadlines, since machines differ. Under CI the examples are the same in every run, so that a change is judged
by what it changed; elsewhere they are new each time, and find more.
"""

import os

from hypothesis import settings

settings.register_profile("equint", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "equint")
