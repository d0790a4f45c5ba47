import pytest

from core.errors import ConfigError
from trainer.config import TrainConfig
from trainer.defaults import DEFAULTS, config_for


@pytest.mark.parametrize("encoder", DEFAULTS)
def test_what_is_given_comes_before_the_encoders_defaults(encoder: str) -> None:
    assert config_for(encoder) == TrainConfig(encoder=encoder, **DEFAULTS[encoder])
    for name in DEFAULTS[encoder]:
        assert config_for(encoder, **{name: None}) == config_for(encoder)
    given = config_for(encoder, dropout=0.25, learning_rate=0.5)
    assert (given.dropout, given.learning_rate) == (0.25, 0.5)


def test_encoders_of_sequences_leave_one_out() -> None:
    splits = {encoder: config_for(encoder).split for encoder in DEFAULTS}
    assert splits == {
        **dict.fromkeys(("mf", "lightgcn", "ngcf", "vbpr", "mmlightgcn"), "random"),
        **dict.fromkeys(("gru4rec", "sasrec", "cl4srec"), "leave-one-out"),
    }


def test_a_methods_own_defaults_come_before_the_encoders() -> None:
    assert config_for("lightgcn", method="cnsdiff").num_steps == 20
    assert config_for("lightgcn", method="cnsdiff", num_steps=7).num_steps == 7
    assert config_for("lightgcn", method="gdnsm").num_steps == 50


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="no encoder is called 'bert'; choose one of mf, "):
        config_for("bert")


@pytest.mark.parametrize("negatives", ["dns", "mixgcf"])
def test_a_method_that_chooses_items_takes_no_sampler_of_them(negatives: str) -> None:
    with pytest.raises(ConfigError, match=f"negatives = '{negatives}' with method catalogue"):
        config_for("lightgcn", method="catalogue", negatives=negatives)
    assert config_for("lightgcn", method="catalogue", negatives="uniform").negatives == "uniform"
    assert config_for("lightgcn", method="adar", negatives=negatives).negatives == negatives
