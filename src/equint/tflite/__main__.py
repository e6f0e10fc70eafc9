"""`python -m equint.tflite`: print the table of docs/tflite.md."""

from .support import page

print(page(), end="")
