"""Tools over the versions of predictors, for sites that name them in their configuration.

    tools: ["watchkeeper.tools.versions.tools:predictor_tools"]

They are not built in: agents are offered them where predictors are kept, and nowhere else. The predictors are
those of the home of whoever looks.
"""

from __future__ import annotations

from watchkeeper.tools.registry import AnyAction, AnyFact
from watchkeeper.tools.versions.facts import PredictorQuality, PredictorVersions
from watchkeeper.tools.versions.promotion import PredictorChallenge, PredictorPromote


def predictor_tools() -> list[AnyFact | AnyAction]:
    """Return what looks at versions (``predictor.versions``, ``.quality``) and what moves their aliases."""
    return [PredictorVersions(), PredictorQuality(), PredictorPromote(), PredictorChallenge()]
