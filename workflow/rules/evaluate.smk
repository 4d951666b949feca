# Distances: statistics of the real images, once a data set, and of every run's samples. Then, beyond the paper, what
# other samplers and grids of timesteps make of the same trained models.

STUDY = config["sampler_study"]


rule reference:
    input:
        images="<results>/data/{dataset}/images.npy",
        manifest="<results>/data/{dataset}/manifest.json",
        weights=weights,
    output:
        "<results>/reference/{dataset}/statistics.npz",
    log:
        "<logs>/reference/{dataset}.log",
    benchmark:
        "<benchmarks>/reference/{dataset}.tsv"
    conda:
        "../../envs/evaluate.yaml"
    threads: threads_of("evaluation")
    resources:
        mem_mb=4000,
        runtime=720,
        gpu=gpus_of("evaluation"),
    params:
        network=config["evaluation"]["network"],
        metrics=list(METRICS),
        n_samples=config["sampling"]["n_samples"],
        repeats=config["evaluation"]["floor_repeats"],
        weights=weights_state(),
        options=weights_option,
        batch_size=lambda wildcards, threads: config["evaluation"]["batch_size"],
        device=lambda wildcards, threads: config["evaluation"]["device"],
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} reference --images {input.images:q} --manifest {input.manifest:q} "
        "--network {params.network} {params.options} --n-samples {params.n_samples} --repeats {params.repeats} "
        "--seed 0 --batch-size {params.batch_size} --device {params.device} --threads {threads} "
        "--output {output:q} > {log:q} 2>&1"


rule evaluate:
    input:
        samples="<results>/runs/{run}/seed{seed}/samples.npz",
        reference=lambda wildcards: f"<results>/reference/{settings_of(wildcards).dataset}/statistics.npz",
        weights=weights,
    output:
        distance="<results>/runs/{run}/seed{seed}/fid.json",
        statistics="<results>/runs/{run}/seed{seed}/statistics.npz",
    log:
        "<logs>/evaluate/{run}.seed{seed}.log",
    benchmark:
        "<benchmarks>/evaluate/{run}.seed{seed}.tsv"
    conda:
        "../../envs/evaluate.yaml"
    threads: threads_of("evaluation")
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=gpus_of("evaluation"),
    params:
        settings=settings_file,
        # These stand in fid.json and from there in the table.
        identity=lambda wildcards: identity(settings_of(wildcards)),
        holds="made_with",  # by which runs are compared in pairs; fid.json of earlier versions lacks it
        network=config["evaluation"]["network"],
        metrics=list(METRICS),
        weights=weights_state(),
        options=weights_option,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} evaluate --samples {input.samples:q} --reference {input.reference:q} "
        "--settings {params.settings:q} --network {params.network} {params.options} --threads {threads} "
        "--output {output.distance:q} --statistics {output.statistics:q} > {log:q} 2>&1"


rule sampler_study:
    input:
        model="<results>/runs/{run}/seed{seed}/model.safetensors",
        reference=lambda wildcards: f"<results>/reference/{settings_of(wildcards).dataset}/statistics.npz",
        weights=weights,
        unnoticed=unnoticed(sampler_study="samplers.csv"),
    output:
        table="<results>/runs/{run}/seed{seed}/samplers.csv",
        drawn="<results>/runs/{run}/seed{seed}/samplers.npz",
    log:
        "<logs>/sampler_study/{run}.seed{seed}.log",
    benchmark:
        "<benchmarks>/sampler_study/{run}.seed{seed}.tsv"
    conda:
        "../../envs/evaluate.yaml"
    threads: threads_of("sampling")
    resources:
        mem_mb=4000,
        runtime=720,
        gpu=gpus_of("sampling"),
    params:
        settings=settings_file,
        identity=lambda wildcards: identity(
            settings_of(wildcards), "run", "dataset", "label", "seed", "process", "sampling"
        ),
        samplers=lambda wildcards: json.dumps(study_samplers(config, settings_of(wildcards))),
        holds="noise_free_steps",  # samplers.csv of earlier versions lacks it
        n_steps=STUDY["n_steps"],
        n_samples=STUDY["n_samples"],
        network=config["evaluation"]["network"],
        weights=weights_state(),
        options=weights_option,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} sampler-study --settings {params.settings:q} --model {input.model:q} "
        "--reference {input.reference:q} --samplers {params.samplers:q} --n-steps {params.n_steps} "
        "--n-samples {params.n_samples} --network {params.network} {params.options} --threads {threads} "
        "--output {output.table:q} --drawn {output.drawn:q} > {log:q} 2>&1"
