"""`turnpoint train`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[
        Path | None,
        typer.Option(help="file or folder of interactions; none: a generated data set"),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="of a single file: random or leave-one-out; default: the encoder's"),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="mf, lightgcn, ngcf, vbpr, mmlightgcn, gru4rec, sasrec, cl4srec, or yours: "
            "external:module:factory"
        ),
    ] = "lightgcn",
    negatives: Annotated[
        str, typer.Option(help="sampler of e_j: uniform, popularity, dns, mixgcf or ahns")
    ] = "uniform",
    candidates: Annotated[
        int | None,
        typer.Option(
            help="M, items that dns, mixgcf, ahns and catalogue choose a negative among; default: "
            "16, catalogue 32 but for sequences"
        ),
    ] = None,
    ahns_alpha: Annotated[float, typer.Option(help="alpha of ahns")] = 1.0,
    ahns_beta: Annotated[float, typer.Option(help="beta of ahns")] = 0.1,
    ahns_power: Annotated[int, typer.Option(help="p of ahns, below 0")] = -2,
    method: Annotated[
        str,
        typer.Option(help="generated negatives e_d: none, adar, dmns, cnsdiff, gdnsm, catalogue"),
    ] = "none",
    draws: Annotated[
        int,
        typer.Option(help="generated negatives per row, of catalogue: each the hardest of M"),
    ] = 4,
    transition: Annotated[
        str | None,
        typer.Option(
            help="rule for t*: score_aware, calibrated, theorem, exact, random, fixed, mixed; "
            "default: score_aware, catalogue fixed"
        ),
    ] = None,
    weight: Annotated[float, typer.Option(help="lambda of Eq. 12, 0 to 1")] = 0.1,
    omega: Annotated[float, typer.Option(help="omega of Eq. 11, above 0")] = 1.0,
    k: Annotated[float, typer.Option(help="k of Eq. 11, above 0")] = 1.0,
    hardness: Annotated[
        float | None,
        typer.Option(help="of the rules exact and fixed, 0 to 1; default: 0.5, catalogue 0"),
    ] = None,
    num_steps: Annotated[
        int | None,
        typer.Option(help="T, diffusion steps, 1 to 1000; default: 50, sequences and cnsdiff 20"),
    ] = None,
    denoiser: Annotated[str, typer.Option(help="film or moment")] = "film",
    schedule: Annotated[str, typer.Option(help="linear, cosine or sigmoid")] = "linear",
    reconstruction: Annotated[
        str, typer.Option(help="reading of Eq. 8's second term: one_step or chain")
    ] = "one_step",
    standardize: Annotated[
        bool, typer.Option(help="divide embeddings by running RMS values; not in the paper")
    ] = True,
    ancestral: Annotated[
        bool, typer.Option("--ancestral", help="add noise in the reverse chain; not in the paper")
    ] = False,
    diffusion_steps: Annotated[
        int, typer.Option(help="the diffusion model's steps for each of the encoder")
    ] = 1,
    cnsdiff_variant: Annotated[
        str, typer.Option(help="of cnsdiff: released, described or causal")
    ] = "causal",
    cnsdiff_strata: Annotated[
        int, typer.Option(help="strata of popularity, of cnsdiff's causal variant")
    ] = 5,
    cnsdiff_contrast: Annotated[float, typer.Option(help="weight of cnsdiff's L_CL")] = 0.3,
    gdnsm_denoiser: Annotated[str, typer.Option(help="of gdnsm: linear or mlp")] = "mlp",
    gdnsm_guidance: Annotated[
        float, typer.Option(help="s of gdnsm; 0 ignores features, 1 is no guidance")
    ] = 1.1,
    gdnsm_start: Annotated[
        int, typer.Option(help="S, epochs before gdnsm's queue opens; 0: all of it at once")
    ] = 30,
    gdnsm_power: Annotated[float, typer.Option(help="lambda of gdnsm's queue, above 0")] = 1.0,
    gdnsm_per_level: Annotated[
        int, typer.Option(help="M, negatives of each level in gdnsm's queue")
    ] = 2,
    ddim_steps: Annotated[
        int | None,
        typer.Option(help="gdnsm generates by DDIM in so many steps; default: DDPM in all T"),
    ] = None,
    dim: Annotated[int, typer.Option(help="d, width of the embeddings")] = 64,
    epochs: Annotated[int, typer.Option(help="most passes over the training pairs")] = 100,
    batch_size: Annotated[
        int | None, typer.Option(help="pairs, or sequences, per step; default: the encoder's")
    ] = None,
    max_length: Annotated[int, typer.Option(help="items of the longest sequence")] = 50,
    dropout: Annotated[
        float | None, typer.Option(help="0 to below 1, where there is any; default: the encoder's")
    ] = None,
    cl4srec_contrast: Annotated[
        float, typer.Option(help="weight of cl4srec's contrastive loss")
    ] = 0.1,
    cl4srec_temperature: Annotated[
        float, typer.Option(help="of that loss's softmax, above 0")
    ] = 1.0,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's, of the encoder; default: the encoder's")
    ] = None,
    diffusion_learning_rate: Annotated[
        float, typer.Option(help="Adam's, of the diffusion model")
    ] = 1e-3,
    l2: Annotated[
        float | None, typer.Option(help="weight of the L2 penalty; default: the encoder's")
    ] = None,
    eval_every: Annotated[int, typer.Option(help="epochs between validations")] = 5,
    patience: Annotated[
        int, typer.Option(help="validations without improvement before stopping")
    ] = 4,
    seed: Annotated[int, typer.Option(help="of everything random, the split included")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="torch threads; default: one per core")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="where to publish: a folder or fsspec address")
    ] = None,
    model: Annotated[str, typer.Option(help="name to publish under")] = "default",
    publish_every: Annotated[
        int, typer.Option(help="epochs between publications; 0: at the end only")
    ] = 0,
    report: Annotated[Path | None, typer.Option(help="JSON report to write")] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(help="safetensors file for the final users and items, and the split"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="folder that keeps the training state; goes on from what is there"),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(help="port to show Prometheus metrics on while training; 0 is a free one"),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="address for them; 0.0.0.0 is every interface")
    ] = "127.0.0.1",
) -> None:
    """Train an encoder, with generated negatives if a method is named, and publish the sampler.

    Under torchrun every step is divided among its workers.
    """
    from dataclasses import replace

    from cli.progress import TrainingProgress, show_report
    from cli.threads import use_threads
    from trainer.cotrain import together
    from trainer.data import load
    from trainer.defaults import config_for, rule_for
    from trainer.distributed import is_main, joined
    from trainer.metrics import TrainerMetrics
    from trainer.pipeline import Outputs
    from trainer.pipeline import train as run
    from trainer.report import write_report

    use_threads(threads)
    rule = rule_for(method)
    config = config_for(
        encoder,
        split=split,
        negatives=negatives,
        candidates=candidates,
        draws=draws,
        ahns_alpha=ahns_alpha,
        ahns_beta=ahns_beta,
        ahns_power=ahns_power,
        method=method,
        dim=dim,
        weight=weight,
        transition=replace(
            rule,
            rule=transition or rule.rule,
            omega=omega,
            k=k,
            hardness=rule.hardness if hardness is None else hardness,
        ),
        num_steps=num_steps,
        schedule=schedule,
        denoiser=denoiser,
        reconstruction=reconstruction,
        standardize=standardize,
        ancestral=ancestral,
        diffusion_steps=diffusion_steps,
        cnsdiff_variant=cnsdiff_variant,
        cnsdiff_strata=cnsdiff_strata,
        cnsdiff_contrast=cnsdiff_contrast,
        gdnsm_denoiser=gdnsm_denoiser,
        gdnsm_guidance=gdnsm_guidance,
        gdnsm_start=gdnsm_start,
        gdnsm_power=gdnsm_power,
        gdnsm_per_level=gdnsm_per_level,
        ddim_steps=ddim_steps,
        epochs=epochs,
        batch_size=batch_size,
        max_length=max_length,
        dropout=dropout,
        cl4srec_contrast=cl4srec_contrast,
        cl4srec_temperature=cl4srec_temperature,
        learning_rate=learning_rate,
        diffusion_learning_rate=diffusion_learning_rate,
        l2=l2,
        eval_every=eval_every,
        patience=patience,
        seed=seed,
        device=device,
    )
    outputs = Outputs(registry, model, publish_every, resume, embeddings=embeddings)
    interactions = load(data, seed=seed, split=config.split)
    with ExitStack() as stack:
        config = replace(config, device=stack.enter_context(joined(device)))
        if not is_main():
            run(interactions, config, outputs)
            return
        typer.echo(interactions.describe())
        watcher = stack.enter_context(TrainingProgress(config)).watcher
        if metrics_port is not None:
            metrics = TrainerMetrics()
            address = stack.enter_context(metrics.served(metrics_host, metrics_port))
            typer.echo(f"metrics on {address}")
            watcher = together(watcher, metrics.watcher)
        result = run(interactions, config, outputs, watcher)
    show_report(result.report)
    if report is not None:
        write_report(result.report, report)
        typer.echo(f"report: {report}")
