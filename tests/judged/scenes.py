"""A judge that knows the answers, and the scenes that the tests ask about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image

from limner.builtin.judge import Reading, Seen
from limner.builtin.world import Scene, draw, scene_at

SEED, COUNT = 3, 4


class KnowsItsScenes:
    """A judge that sees the truth in the world's own pictures of some scenes, and nothing in any other picture."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self._scenes = {draw(scene).tobytes(): scene for scene in scenes}

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        return [self._reading(self._scenes.get(picture.tobytes())) for picture in pictures]

    def _reading(self, scene: Scene | None) -> Reading:
        if scene is None:
            return Reading((), "", "")
        things = tuple(Seen(thing.kind, thing.colour, thing.x, thing.y, 1.0) for thing in scene.things)
        return Reading(things, scene.background, scene.style)


SCENES = [scene_at(SEED, position, split="test") for position in range(COUNT)]
JUDGE = KnowsItsScenes(SCENES)
