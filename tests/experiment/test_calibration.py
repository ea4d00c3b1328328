"""Error rates of the verdict where the truth is known, small; the script has them large."""

import json

from saerepgeo.experiment.calibration import SyntheticExperiment, calibrate, main, synthetic_rows


def test_without_an_effect_the_verdict_rarely_says_effect():
    found = calibrate(SyntheticExperiment(elasticity=0.0), 40)
    assert found["pooled"] <= 6  # 5 % of 40 is 2; 7 or more has probability 0.003
    assert found["any_concept"] <= 6
    assert found["undecided"] == 0


def test_a_planted_effect_is_found_and_has_its_sign():
    found = calibrate(SyntheticExperiment(elasticity=-0.1), 15)
    assert found["pooled"] >= 13
    assert found["wrong_way"] == 0


def test_the_same_repetition_gives_the_same_rows():
    truth = SyntheticExperiment(n_seeds=2)
    assert synthetic_rows(truth, 3) == synthetic_rows(truth, 3)
    assert synthetic_rows(truth, 3) != synthetic_rows(truth, 4)


def test_the_command_writes_its_counts(tmp_path, capsys):
    path = tmp_path / "calibration.json"
    main(["--repetitions", "1", "--elasticities", "-0.3", "--output", str(path)])
    assert "effect in" in capsys.readouterr().out
    assert json.loads(path.read_text())[0]["n"] == 1
