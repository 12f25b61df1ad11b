import pytest

from foldblend.settings.nets import AnswerSettings, LossSettings
from foldblend.settings.run import RunSettings


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"focal_gamma": 1.0},
            "loss.focal_gamma is set, but loss.name is auto; only focal reads it, so remove it",
        ),
        ({"name": "zlpr", "pos_weight_power": 0.5}, "loss.pos_weight_power is set, but loss.name is zlpr"),
        ({"name": "asymmetric", "label_smoothing": 0.1}, "loss.label_smoothing is set, but loss.name is asymmetric"),
        ({"name": "bce", "balanced_mu": 0.2}, "loss.balanced_mu is set, but loss.name is bce"),
        ({"name": "bce", "f1_smoothing": 0.0}, "loss.f1_smoothing is set, but loss.name is bce"),
        ({"label_smoothing": 1.0}, "loss.label_smoothing is 1.0; expected 0 or more, less than 1"),
        ({"name": "asymmetric", "asymmetric_shift": -0.1}, "loss.asymmetric_shift is -0.1; expected 0 or more"),
        ({"name": "focal", "focal_gamma": -1.0}, "loss.focal_gamma is -1.0; expected 0 or more"),
        (
            {"name": "distribution_balanced", "balanced_lambda": 0.0},
            "balanced_lambda is 0.0; expected more than 0",
        ),
        ({"name": "zlpr", "soft_targets": "a.csv"}, "loss.soft_targets is set, but loss.name zlpr takes no fractions"),
        ({"name": "soft_macro_f1", "soft_targets": "a.csv"}, "loss.name soft_macro_f1 takes no fractions"),
        ({"soft_targets": "../a.csv"}, "loss.soft_targets is '../a.csv'; expected the name of a file inside data/"),
        ({"soft_targets_sha256": "12"}, "loss.soft_targets_sha256 is set, but loss.soft_targets names no file"),
        ({"pos_weight_cap": 50.0}, "loss.pos_weight_cap is set, but loss.pos_weight_power is 0"),
        ({"pos_weight_cap": 0.0}, "loss.pos_weight_cap is 0.0; expected more than 0"),
    ],
)
def test_what_cannot_work_or_would_do_nothing_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        RunSettings("encoder", loss=LossSettings(**changed))


@pytest.mark.parametrize("form", ["list", "yes_no"])
def test_a_generator_has_no_bias_to_start(form):
    with pytest.raises(ValueError, match="loss.* is set, but"):
        RunSettings("generator", loss=LossSettings(bias_from_prior=False), answer=AnswerSettings(form))
    RunSettings("generator", loss=LossSettings(bias_from_prior=True), answer=AnswerSettings(form))


def test_written_lists_take_no_shares():
    with pytest.raises(ValueError, match="loss.soft_targets is set, but answer.form list"):
        RunSettings("generator", loss=LossSettings(soft_targets="a.csv"))
    RunSettings("generator", loss=LossSettings(soft_targets="a.csv"), answer=AnswerSettings("yes_no"))


def test_each_loss_takes_its_own_settings():
    for changed in (
        {"name": "focal", "focal_gamma": 1.0, "label_smoothing": 0.1, "pos_weight_power": 0.5},
        {"name": "asymmetric", "asymmetric_gamma_negative": 2.0, "asymmetric_shift": 0.0},
        {"name": "distribution_balanced", "balanced_alpha": 0.2, "balanced_kappa": 0.0},
        {"name": "soft_macro_f1", "f1_smoothing": 0.0},
        {"name": "zlpr"},
    ):
        assert RunSettings("encoder", loss=LossSettings(**changed)).loss.name == changed["name"]
