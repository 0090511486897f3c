"""One YAML file is one experiment: its sections, their defaults and their checks."""

from jaxrl.config.algo import CorrectionSection, GRPOSection, PPOSection, ReplaySection
from jaxrl.config.experiment import (
    Config,
    DataSection,
    EvalStage,
    GRPOStage,
    PPOStage,
    RLStage,
    RSFTStage,
    SFTStage,
    Stage,
)
from jaxrl.config.file import load_config, make_section
from jaxrl.config.shared import (
    LoraSection,
    MeshSection,
    ModelSection,
    OptimSection,
    SampleSection,
    TrackSection,
    VerifySection,
)

__all__ = [
    "Config",
    "CorrectionSection",
    "DataSection",
    "EvalStage",
    "GRPOSection",
    "GRPOStage",
    "LoraSection",
    "MeshSection",
    "ModelSection",
    "OptimSection",
    "PPOSection",
    "PPOStage",
    "RLStage",
    "RSFTStage",
    "ReplaySection",
    "SFTStage",
    "SampleSection",
    "Stage",
    "TrackSection",
    "VerifySection",
    "load_config",
    "make_section",
]
