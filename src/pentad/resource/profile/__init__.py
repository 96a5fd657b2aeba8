"""Device profiles: measured here, or published by makers.

from pentad.resource import profile
own = profile.measure(print)        # a minute or two
profile.save(own)                   # $PENTAD_HOME/profile.json
profile.load(), profile.find("rtx-4090"), profile.find("jetson-agx-orin-64gb:mode=30w"), profile.published()
"""

from __future__ import annotations

from pentad.resource.profile.catalogue import find, in_mode, published
from pentad.resource.profile.files import default_path, load, save
from pentad.resource.profile.measuring import Effort, measure

__all__ = ["Effort", "default_path", "find", "in_mode", "load", "measure", "published", "save"]
