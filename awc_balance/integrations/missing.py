"""The error for a package that is not installed: `missing`."""

from __future__ import annotations


def missing(package: str) -> ModuleNotFoundError:
    """What to raise where an adapter's package cannot be imported.

    Args:
        package: Its name, which is that of the extra as well.
    """
    return ModuleNotFoundError(
        f"`awc_balance.integrations.{package}` needs the package {package}. It is not installed. "
        f"Run pip install 'awc_balance[{package}]'.",
        name=package,
    )
