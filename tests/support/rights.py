"""What the README says that a user of a broker needs, as the tests grant it."""

import re
from pathlib import Path

_README = Path(__file__).parents[2] / "README.md"


def documented_rights() -> list[str]:
    """The rules of a Redis user for the channel "pbus:shop"; name and password are the test's own."""
    text = _README.read_text().replace("\\|", "|")
    match = re.search(r"ACL SETUSER user on >password ([^`]+)", text)
    assert match is not None
    return match[1].split()


def documented_grants() -> list[str]:
    """What an administrator runs for the role "shop_app" in the database "shop"."""
    (block,) = re.findall(r"```sql\n(.*?)```", _README.read_text(encoding="utf-8"), re.DOTALL)
    return [line for line in block.splitlines() if line.strip()]
