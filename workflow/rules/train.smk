# One model a run and seed. Checkpoints live in the store, which Snakemake does not know: a killed job goes on from its
# last checkpoint, and a model that was trained once is never trained again.


NODES_WAIT = 600  # seconds; torchrun's default


def trainer(wildcards, threads):
    """The start of the command line: one process, or torchrun with one for each GPU. What torchrun is told by the
    environment, an older one ignores: to pass on Slurm's signals, and to wait while the state is being saved."""
    training, command = settings_of(wildcards).training, blurdiff(wildcards, threads)
    gpus, nodes = training["gpus"], training["nodes"]
    if gpus * nodes == 1:
        return command
    variables = f"OMP_NUM_THREADS={max(1, threads // gpus)} PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    variables += " TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600"
    # By its own name a machine may not find itself.
    launch, place = "", "--standalone --local-addr 127.0.0.1"
    if nodes > 1:
        port = "$((20000 + SLURM_JOB_ID % 20000))"
        # torchrun says nothing while its nodes wait for one another.
        variables = (
            f'echo "waiting for torchrun on all {nodes} nodes to meet at $(hostname):{port}; after {NODES_WAIT} s it '
            f'gives up" >&2; {variables}'
        )
        launch = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={threads} "
        place = (
            f'--nnodes={nodes} --rdzv-backend=c10d --rdzv-endpoint="$(hostname):{port}" --rdzv-conf=join_timeout={NODES_WAIT} '
            '--rdzv-id="${SLURM_JOB_ID:?training.nodes larger than 1 needs Slurm}"'
        )
    torchrun = f"{launch}python -m torch.distributed.run {place} --nproc-per-node={gpus} -m blurdiff"
    return f"{variables} {command.replace('python -m blurdiff', torchrun)}"


def gpus_to_train(wildcards):
    """For `resources`: as many GPUs as there are processes, on all nodes together."""
    training = settings_of(wildcards).training
    return training["gpus"] * training["nodes"] * (training["device"] == "cuda")


def images_of(wildcards):
    """images.npy of the run's data set."""
    return f"<results>/data/{settings_of(wildcards).dataset}/images.npy"


def manifest_of(wildcards):
    """manifest.json of the run's data set."""
    return f"<results>/data/{settings_of(wildcards).dataset}/manifest.json"


def tables_of(wildcards):
    """CSV files that define the run's process, if there are any."""
    return list(files_of(settings_of(wildcards).process).values())


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
        "trap : TERM; {{ {params.trainer} train --settings {params.settings:q} --images {input.images:q} "
        "--manifest {input.manifest:q} --store {params.store:q} --output {output.model:q} "
        "--history {output.history:q} --threads {threads}; }} > {log:q} 2>&1"
