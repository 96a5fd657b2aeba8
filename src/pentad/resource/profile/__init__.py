"""Device profiles: measured here, or published by makers.

from pentad.resource import profile
own = profile.measure(print)        # a minute or two
profile.save(own)                   # $PENTAD_HOME/profile.json
profile.load(), profile.find("rtx-4090"), profile.published()
"""

from __future__ import annotations

from pentad.resource.profile.files import default_path, find, load, published, save
from pentad.resource.profile.measuring import Effort, measure

__all__ = ["Effort", "default_path", "find", "load", "measure", "published", "save"]
