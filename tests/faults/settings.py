"""Settings that make no sense, misspelt names, wrong types, classes that are none."""

from collections.abc import Callable
from typing import Any

from faults.faults import Fault, Place, with_data, with_model, with_options, with_trainer

INF, NAN = float("inf"), float("nan")


def out_of_bounds(make: Callable[..., Fault], **bad: list[Any]) -> list[Fault]:
    """Return a row for each of the values that a setting must not have."""
    return [
        make(f"{name} {value}", f"`([\\w.]+\\.)?{name}` must be", **{name: value})
        for name, values in bad.items()
        for value in values
    ]


DATA = out_of_bounds(
    with_data,
    lm=["", 3],
    hook_name=[""],
    lm_dtype=["float16", 16],
    center_residuals=["maybe"],
    concepts=["months days", [1]],
    batch_size=[0, -64, 1.5, "many", True],
    n_lanes=[0, -4],
    window_steps=[0],
    lm_batch_size=[0],
    context_size=[0, 1, -16],
    validation_contexts=[0, -3],
    n_workers=[-1],
    concept_fraction=[-0.1, 1.5, INF, NAN, "half"],
    heldout_text_fraction=[0.0, 0.6, -0.1, NAN],
    heldout_items=[1.0, -0.2, NAN],
    heldout_prompts=[1.0, -0.2, INF],
    seed=[-1, 0.5, "a"],
    cache_stream=["always"],
)
MODEL = out_of_bounds(
    with_model,
    regularizer=["aed", ""],
    direction=["up"],
    weight=[INF, -INF, NAN, -0.1, "strong"],
    target_scale=[0.0, -1.0, INF, NAN],
    lr=[-1.0, 0.0, INF, NAN, "fast"],
    betas=[[0.9], [0.9, 1.0], [-0.1, 0.9], "0.9"],
    warmup_steps=[-1, 2.5],
    decay_fraction=[-0.1, 1.1, NAN],
    dead_after=[-1],
    shuffle_labels=["perhaps"],
    seed=[-1],
    sae=["nowhere", 3],
)
TRAINER = out_of_bounds(
    with_trainer,
    max_steps=[-7, "all", 1.5],
    max_epochs=[-3],
    val_check_interval=[0, -1, 0.0],
    check_val_every_n_epoch=[0],
    gradient_clip_val=[-1.0, INF, NAN],
    gradient_clip_algorithm=["norms"],
    num_sanity_val_steps=[-2],
    accumulate_grad_batches=[0],
    log_every_n_steps=[-1],
    limit_val_batches=[-1],
    num_nodes=[0],
    precision=["33", "32-tru", "16-mixed", "16-true", 16],
)


def sae(name: str, says: str, **settings: Any) -> Fault:
    """Return the fault of the SAE's source."""
    return Fault(name, lambda place: place.model(sae=settings).command(), says)


SAES = [
    sae("d_in 0", "`sae.d_in` must be", architecture="topk", d_in=0, d_sae=96),
    sae("d_sae -1", "`sae.d_sae` must be", architecture="topk", d_in=32, d_sae=-1),
    sae("d_sae text", "`model.init_args.sae.d_sae` must be", architecture="topk", d_sae="a"),
    sae("input_scale inf", "`sae.input_scale` must be", path="x", input_scale=INF),
    sae("no source", "must name exactly one of `path`"),
    sae("path null", "must name exactly one of `path`.*got none", path=None),
    sae("path and release", "exactly one of.*got path, release", path="x", release="y"),
    sae("release alone", "needs `sae.sae_id`", release="gpt2-small-res-jb"),
    sae("no folder", "`sae.path` must be a folder.*nowhere", path="nowhere"),
    sae("misspelt", "pth.*is no setting.*path", pth="x"),
]


def callbacks(name: str, says: str, change: Callable[[list[Any]], Any]) -> Fault:
    """Return the fault of the list of callbacks."""

    def given(place: Place) -> list[str]:
        own = place.config["trainer"]["callbacks"]
        place.trainer(callbacks=own + change(own))
        return place.command()

    return Fault(name, given, says)


OURS = "saerepgeo.callbacks"
CALLBACKS = [
    callbacks("export twice", "names SAEExport twice.*same files", lambda own: [own[2]]),
    callbacks("checkpoints twice", "names ModelCheckpoint twice", lambda own: [own[0]]),
    callbacks(
        "losses of no context",
        "`n_contexts` must be an integer ≥ 1, got 0",
        lambda _: [{"class_path": f"{OURS}.LMLoss", "init_args": {"n_contexts": 0}}],
    ),
    callbacks(
        "losses of some contexts",
        "`trainer.callbacks.init_args.n_contexts` must be an integer, got some",
        lambda _: [{"class_path": f"{OURS}.LMLoss", "init_args": {"n_contexts": "some"}}],
    ),
    callbacks(
        "export in no dtype",
        "`trainer.callbacks.init_args.dtype` must be one of float32",
        lambda _: [
            {"class_path": f"{OURS}.SAEExport", "init_args": {"dtype": "f", "dirpath": "x"}}
        ],
    ),
    callbacks(
        "export without folder",
        "`trainer.callbacks.init_args.dirpath` must be given",
        lambda _: [{"class_path": f"{OURS}.SAEExport"}],
    ),
    callbacks(
        "misspelt folder",
        "dirpat` is no setting.*`dirpath`",
        lambda _: [{"class_path": f"{OURS}.SAEExport", "init_args": {"dirpat": "x"}}],
    ),
    callbacks(
        "unknown callback",
        "names the class .*Expord.*did you mean SAEExport",
        lambda _: [{"class_path": f"{OURS}.SAEExpord"}],
    ),
    callbacks("no callback", "`trainer.callbacks` must", lambda _: [3]),
    Fault(
        "interruption without folder",
        lambda p: p.trainer(callbacks=[{"class_path": f"{OURS}.Interruption"}]).command(),
        "Interruption needs `dirpath`",
    ),
]
OPTIONS = [
    with_options("misspelt setting", "batch_sise.*batch_size", "--data.init_args.batch_sise=3"),
    with_options("misspelt, short", "batch_sise` is no.*batch_size", "--data.batch_sise=3"),
    with_options("of the module", "`model.init_args.weigth` is no.*`weight`", "--model.weigth=3"),
    with_options("of the SAE", "sae.pathh` is no.*sae.path`", "--model.sae.pathh=3"),
    with_options("of the trainer", "max_step` is no.*`trainer.max_steps`", "--trainer.max_step=3"),
    with_options("without group", "`max_steps` is no.*`trainer.max_steps`", "--max_steps=3"),
    with_options("of data, no group", "did you mean `data.init_args.lm`", "--lm=gpt2"),
    with_options("misspelt group", "did you mean `trainer.max_steps`", "--trainr.max_steps=3"),
    with_options("null is no text", "exactly one of.*got none", "--model.init_args.sae.path=null"),
    with_options("of no kind", "`frobnicate` is no setting", "--frobnicate=3"),
    with_options("one letter", "`x` is no setting", "-x"),
    with_options("bare word", "`bare` stands alone", "bare"),
    with_options("no value", "`trainer.max_steps` needs a value", "--trainer.max_steps"),
    with_options("trainer a number", "`trainer` must be settings", "--trainer=3"),
    with_options("data a number", "`data` must be a class", "--data=3"),
    with_options("data null", "`data` is not given", "--data=null"),
    with_options(
        "data no class",
        "ActivationDataModul,.*did you mean ActivationDataModule",
        "--data=saerepgeo.data.ActivationDataModul",
    ),
    with_options("data no module", "`data` names the class|`data` must", "--data=nowhere.Data"),
    with_options("data a function", "`data` must name a subclass", "--data=os.system"),
    with_options("model no class", "`model` names the class", "--model=saerepgeo.cases.Nope"),
    with_options("model the data", "`model` must", "--model=saerepgeo.data.ActivationDataModule"),
    with_options("seed negative", "`seed_everything` must be", "--seed_everything=-1"),
    with_options(
        "seed huge", "`seed_everything` must be", "--seed_everything=99999999999999999999"
    ),
    with_options("seed text", "`seed_everything` must be", "--seed_everything=x"),
    with_options("no devices", "devices=.0", "--trainer.devices=0"),
    with_options("devices text", "devices", "--trainer.devices=many"),
    with_options(
        "more devices than concepts",
        "at most that of the concepts, 2, which they share, got 3: set `trainer.devices` to 2",
        "--trainer.devices=3",
        command="test",
    ),
    with_options("more devices than lanes", "devices must divide `n_lanes`", "--trainer.devices=7"),
    with_options("no accelerator", "gpu", "--trainer.accelerator=gpu"),
    with_options("unknown accelerator", "accelerator", "--trainer.accelerator=abacus"),
    with_options("unknown strategy", "strategy", "--trainer.strategy=luck"),
    with_options("time that is none", "soon.*DD:HH:MM:SS", "--trainer.max_time=soon"),
    with_options("unknown logger", "`trainer.logger`", "--trainer.logger=nowhere.Logger"),
    with_options("profiler that is none", "profiler", "--trainer.profiler=nobody"),
    with_options("lanes do not divide", "`batch_size` must be a multiple", "--data.batch_size=63"),
    with_options("longer than the model", "64", "--data.context_size=65"),
]
TEST = [
    Fault(
        f"test: {name}",
        lambda place, settings=settings, module=module: Place.command(
            _analysis(place, module, settings), "test"
        ),
        says,
    )
    for name, module, settings, says in [
        (
            "negative noise",
            "Stratification",
            {"noise_levels": [-1.0]},
            "each of `noise_levels` must",
        ),
        ("noise nan", "Stratification", {"noise_levels": [NAN]}, "each of `noise_levels` must"),
        ("noise text", "Stratification", {"noise_levels": ["a"]}, "noise_levels` must be a number"),
        ("no noise", "Stratification", {"noise_levels": []}, "`noise_levels`.*at least one"),
        ("no scale", "Stratification", {"noise_scales": []}, "`noise_scales`.*at least one"),
        (
            "unknown scale",
            "Stratification",
            {"noise_scales": ["big"]},
            "noise_scales` must be one of",
        ),
        ("no draw", "Stratification", {"n_draws": 0}, "`n_draws` must be an integer ≥ 1"),
        ("random -1", "Stratification", {"n_random": -1}, "`n_random` must be an integer ≥ 0"),
        ("seed -1", "Stratification", {"seed": -1}, "`seed` must be an integer ≥ 0"),
        ("no protocol", "Structure", {"protocols": []}, "`protocols` must name"),
        ("unknown protocol", "Structure", {"protocols": ["mine"]}, "protocols` must be one of"),
        ("nulls -1", "Structure", {"n_nulls": -1}, "`n_nulls` must be an integer ≥ 0"),
        ("subsamples -1", "Structure", {"n_subsamples": -1}, "`n_subsamples` must be"),
        ("permutations -1", "Structure", {"n_permutations": -1}, "`n_permutations` must be"),
        ("no SAE", "Structure", {"sae": []}, "`sae` must name an SAE"),
        (
            "unknown metric",
            "Structure",
            {"metrics": [{"class_path": "saerepgeo.metrics.TwoN"}]},
            "saerepgeo.metrics.TwoN,.*did you mean TwoNN",
        ),
        (
            "metric's setting",
            "Structure",
            {
                "metrics": [
                    {
                        "class_path": "saerepgeo.metrics.AverageGeodesicDistance",
                        "init_args": {"n_neighbours": 3},
                    }
                ]
            },
            "n_neighbours` is no.*n_neighbors",
        ),
    ]
]


TEST.append(
    Fault(
        "analysis in fit",
        lambda place: _analysis(place, "Structure", {}).command("fit"),
        "analyses train nothing",
    )
)


def _analysis(place: Place, module: str, settings: dict[str, Any]) -> Place:
    own = {"sae": {"path": str(place.sae)}} | settings
    place.config["model"] = {"class_path": f"saerepgeo.cases.{module}Module", "init_args": own}
    place.trainer(callbacks=[])
    return place


REPRODUCE = [
    Fault(f"reproduce {given}", lambda place, given=given: ["reproduce", *given.split()], says)
    for given, says in (
        ("--case 1", "`case` is no setting: did you mean `cases`"),
        ("--cases 4", "`cases` must be one of 1, 2, 3, got 4"),
        ("--cases one", "`cases` must be "),
        ("--cases", "`cases` needs a value"),
        ("--models nope", "`--models` names 'nope'; there are "),
        ("--configs nowhere", "no case1.yaml in nowhere"),
    )
]

FAULTS: list[Fault] = [*DATA, *MODEL, *TRAINER, *SAES, *CALLBACKS, *OPTIONS, *TEST, *REPRODUCE]
