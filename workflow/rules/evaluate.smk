# Distances: statistics of the real images, once a data set, and of every run's samples. Then, beyond the paper, what
# other samplers and grids of timesteps make of the same trained models.

STUDY = config["sampler_study"]
FIRST = [SETTINGS[run, SEEDS[0]] for run in STUDY["runs"]]
STUDIED = [SETTINGS[run, seed] for run in STUDY["runs"] for seed in SEEDS] if STUDY["seeds"] == "all" else FIRST

TILTED = [settings for settings in SETTINGS.values() if settings.process.snr_tilt is not None]


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
        samplers=json.dumps(STUDY["samplers"]),
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


rule samplers:
    input:
        files_of_runs("samplers.csv", STUDIED),
    output:
        csv=report("<results>/samplers.csv", caption="../report/samplers.rst", category="Samplers"),
        png=report("<results>/figures/samplers.png", caption="../report/samplers.rst", category="Samplers"),
        pdf="<results>/figures/samplers.pdf",
        caption="<results>/figures/samplers.md",
    log:
        "<logs>/figures/samplers.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        identity=[identity(settings) for settings in STUDIED],
        settings=lambda wildcards, threads: settings_files(*STUDIED),
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} samplers --studies {input:q} --settings {params.settings:q} --csv {output.csv:q} "
        "--output {output.png:q} --pdf {output.pdf:q} --caption {output.caption:q} > {log:q} 2>&1"


rule failures:
    input:
        evaluations=files_of_runs("fid.json", FIRST),
        samples=files_of_runs("samples.npz", FIRST),
        images=[f"<results>/data/{settings.dataset}/images.npy" for settings in FIRST],
        studies=files_of_runs("samplers.csv", FIRST),
        drawn=files_of_runs("samplers.npz", FIRST),
    output:
        csv=report("<results>/failures.csv", caption="../report/failures.rst", category="What breaks"),
        markdown="<results>/failures.md",
        png=report("<results>/figures/failures.png", caption="../report/failures.rst", category="What breaks"),
        pdf="<results>/figures/failures.pdf",
        caption="<results>/figures/failures.md",
    log:
        "<logs>/figures/failures.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        identity=[identity(settings) for settings in FIRST],
        settings=lambda wildcards, threads: settings_files(*FIRST),
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} failures --evaluations {input.evaluations:q} --samples {input.samples:q} "
        "--images {input.images:q} --studies {input.studies:q} --drawn {input.drawn:q} --settings {params.settings:q} "
        "--csv {output.csv:q} --markdown {output.markdown:q} --output {output.png:q} --pdf {output.pdf:q} "
        "--caption {output.caption:q} > {log:q} 2>&1"


rule tilt:
    input:
        evaluations=files_of_runs("fid.json", TILTED),
        samples=files_of_runs("samples.npz", TILTED),
        images=[f"<results>/data/{settings.dataset}/images.npy" for settings in TILTED],
        studies=files_of_runs("samplers.csv", [settings for settings in STUDIED if settings in TILTED]),
    output:
        csv=report("<results>/tilt.csv", caption="../report/tilt.rst", category="Is coarse to fine better?"),
        markdown="<results>/tilt.md",
        png=report("<results>/figures/tilt.png", caption="../report/tilt.rst", category="Is coarse to fine better?"),
        pdf="<results>/figures/tilt.pdf",
        caption="<results>/figures/tilt.md",
    log:
        "<logs>/figures/tilt.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        identity=[identity(settings) for settings in TILTED],
        settings=lambda wildcards, threads: settings_files(*TILTED),
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} tilt --evaluations {input.evaluations:q} --samples {input.samples:q} "
        "--images {input.images:q} --studies {input.studies:q} --settings {params.settings:q} "
        "--csv {output.csv:q} --markdown {output.markdown:q} --output {output.png:q} --pdf {output.pdf:q} "
        "--caption {output.caption:q} > {log:q} 2>&1"
