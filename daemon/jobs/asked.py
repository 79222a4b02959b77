"""What an export is asked of: the store, the territory, and the state of the map."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from daemon import __version__
from schemas.errors import UsageError
from schemas.export import ExportRequest
from updater.errors import NotFound
from updater.page_reads import stamp
from updater.store import Store
from updater.territories import Territory, territories_of


def asked_of(stores: Sequence[Store], request: ExportRequest) -> tuple[Store, Territory | None]:
    """The store of a request, and its territory; None for all of the store.

    Raises:
        NotFound: no store or territory of that name.
        UsageError: it could be several stores.
    """
    named, wanted = request.departement, request.territory
    stores = [store for store in stores if named in {None, store.territory}]
    if not stores:
        raise NotFound(f"This service does not serve {named}.")
    if wanted is None and len(stores) > 1:
        known = ", ".join(store.territory for store in stores)
        raise UsageError(f"departement: this service has {known}; name one.")
    for store in stores:
        if wanted in {None, store.territory}:
            return store, None
        if found := territories_of(store, [str(wanted)]):
            return store, found[0]
    raise NotFound(f"There is no territory {wanted!r} in the maps of this service.")


def key_of(store: Store, request: ExportRequest) -> str:
    """The same for the same question about the same state of the same map."""
    now = stamp(store)
    said = f"{__version__} {store.territory} {now.map} {now.territories} "
    wanted = request.model_copy(update={"crs": request.crs or store.crs})
    return hashlib.sha256((said + wanted.model_dump_json()).encode()).hexdigest()
