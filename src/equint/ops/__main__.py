"""`python -m equint.ops`: print the table of docs/operators.md."""

from .support import page

if __name__ == "__main__":
    print(page(), end="")
