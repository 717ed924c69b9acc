"""Every setting of every study is a run that the built-in model can begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from limner.models.sd1 import SD1
from limner.study.grid import STUDIES, Conditions, Setting, Study
from limner.study.training import Place, run_config

EVERY = [(study, setting) for study in STUDIES.values() for setting in study.settings]


@pytest.mark.parametrize(("study", "setting"), EVERY, ids=[f"{study.name}: {setting.name}" for study, setting in EVERY])
def test_a_setting_is_a_valid_run(study: Study, setting: Setting, tmp_path: Path) -> None:
    place = Place(tmp_path, "builtin", {}, 128)
    for steps in setting.steps:
        config = run_config(setting, study.lesson, Conditions(), place, out=tmp_path / "run", steps=steps)
        assert config.train.steps == steps
        assert config.schedule.kind == "constant"  # else a run to 200 is no beginning of one to 400
        assert config.optimizer.lr == setting.lr
    assert list(setting.steps) == sorted(set(setting.steps))


def test_every_layer_that_a_setting_names_is_in_the_built_in_model(tmp_path: Path) -> None:
    outline, place = SD1(path="builtin").outline(), Place(tmp_path, "builtin", {}, 128)
    checked = 0
    for study, setting in EVERY:
        method = run_config(setting, study.lesson, Conditions(), place, out=tmp_path, steps=setting.steps[-1]).method
        if method.kind in ("lora", "loha", "lokr", "pivotal"):
            method.check_targets(outline)
            checked += 1
    assert checked > 15


def test_names_are_those_of_one_row() -> None:
    for study in STUDIES.values():
        names = [setting.name for setting in study.settings]
        assert len(set(names)) == len(names)


def test_the_bars_are_those_that_were_asked_for() -> None:
    assert STUDIES["dreambooth"].bars == {"recognised": 0.85, "diversity": 0.90}
    assert STUDIES["textual_inversion"].bars == {"recognised": 0.60}
    assert (Conditions().prompts, Conditions().seeds) == (100, 3)
    priors = {(setting.prior, bool(setting.method.get("text_encoder"))) for setting in STUDIES["dreambooth"].settings}
    assert len(priors) == 6
