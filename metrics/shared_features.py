"""Features that several metrics of one run share, so that each image is generated and looked at once."""
from collections.abc import Callable, Hashable

from metrics.feature_stats import FeatureStats


class SharedFeatures:
    """Feature statistics of one network's images and of the real ones, by all that they depend on.

    They are kept whole, as vectors and as moments, because it is not known what the next metric needs: 400 MB for
    50,000 images and 2,048 features.
    """

    def __init__(self) -> None:
        self._stats: dict[Hashable, FeatureStats] = {}

    def get(self, key: Hashable, collect: Callable[..., FeatureStats], **capture: bool) -> FeatureStats:
        """What `collect(capture_all=True, capture_mean_cov=True)` gave for this key, of it what is to be captured."""
        if key not in self._stats:
            self._stats[key] = collect(capture_all=True, capture_mean_cov=True)
        return self._stats[key].reduced(**capture)
