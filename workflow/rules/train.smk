# One model a run and seed. Checkpoints live in the store, which Snakemake does not know: a killed job goes on from its
# last checkpoint, and a model that was trained once is never trained again.


rule train:
    input:
        images=images_of,
        manifest=manifest_of,
        tables=tables_of,
        unnoticed=unnoticed(train="model.safetensors", evaluate="fid.json"),
    output:
        model="<results>/runs/{run}/seed{seed}/model.safetensors",
        history="<results>/runs/{run}/seed{seed}/history.csv",
    log:
        "<logs>/train/{run}.seed{seed}.log",
    benchmark:
        "<benchmarks>/train/{run}.seed{seed}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: threads_of("training")
    resources:
        mem_mb=lambda wildcards: 4000 * settings_of(wildcards).training.gpus,
        runtime=2880,
        gpu=gpus_to_train,
    params:
        settings=settings_file,
        identity=lambda wildcards: identity(
            settings_of(wildcards), "seed", "resolution", "process", "network", "training"
        ),
        store=lambda wildcards, threads: config["store"],
        trainer=trainer,
    # A batch system sends SIGTERM to all processes of a job: this shell must outlive the trainer, which saves its state.
    shell:
        "trap : TERM; {params.trainer} train --settings {params.settings:q} --images {input.images:q} "
        "--manifest {input.manifest:q} --store {params.store:q} --output {output.model:q} "
        "--history {output.history:q} --threads {threads} > {log:q} 2>&1"
