"""On whose behalf a transaction works: one tenant, or the operator. There is no third way and no default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """Build it with tenant() or take OPERATOR. name: the tenant, "" for the operator."""

    name: str
    operator: bool = False

    @property
    def only(self) -> str | None:
        """The one tenant whose rows count, None for all."""
        return None if self.operator else self.name

    def may_see(self, tenant: str) -> bool:
        """What row-level security decides; for the memory twins."""
        return self.operator or tenant == self.name


#: Sees and writes the rows of every tenant: the audit, the look-up of a key whose tenant is not known yet, admins.
OPERATOR = Access("", operator=True)


def tenant(name: str) -> Access:
    """Sees and writes the rows of one tenant. ValueError for "": that is nobody."""
    if not name:
        raise ValueError("a tenant has a name")
    return Access(name)
