# Samples of a run and seed, in shards of fixed size: a killed job loses one shard, and more samples are more shards.


def shard_identity(wildcards):
    """What decides a shard: how many there are in all does not, and the strips come from the first alone."""
    settings = settings_of(wildcards)
    of_strips = () if wildcards.shard == "0" else ("n_strip", "n_snapshots", "strip_x0")
    return {"seed": settings.seed, "sampling": made_by(settings.sampling, "n_samples", *of_strips)}


def shards_of(wildcards):
    """All shards of a run and seed."""
    n_shards = -(-config["sampling"]["n_samples"] // config["sampling"]["shard_size"])
    return [f"<results>/runs/{wildcards.run}/seed{wildcards.seed}/shards/{shard}.npz" for shard in range(n_shards)]


rule sample:
    input:
        model="<results>/runs/{run}/seed{seed}/model.safetensors",
    output:
        "<results>/runs/{run}/seed{seed}/shards/{shard}.npz",
    log:
        "<logs>/sample/{run}.seed{seed}.{shard}.log",
    benchmark:
        "<benchmarks>/sample/{run}.seed{seed}.{shard}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: threads_of("sampling")
    resources:
        mem_mb=4000,
        runtime=720,
        gpu=gpus_of("sampling"),
    params:
        settings=settings_file,
        identity=shard_identity,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} sample --settings {params.settings:q} --model {input.model:q} --shard {wildcards.shard} "
        "--output {output:q} --threads {threads} > {log:q} 2>&1"


rule gather:
    input:
        shards_of,
    output:
        samples="<results>/runs/{run}/seed{seed}/samples.npz",
        strips="<results>/runs/{run}/seed{seed}/strips.npz",
    log:
        "<logs>/gather/{run}.seed{seed}.log",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        n_samples=config["sampling"]["n_samples"],
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} gather --shards {input:q} --n-samples {params.n_samples} --output {output.samples:q} "
        "--strips {output.strips:q} > {log:q} 2>&1"
