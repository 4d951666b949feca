# Images: an LSUN-format LMDB, the user's or a synthetic one, a folder or a zip, to one uint8 array a data set.


def source_of(wildcards):
    """The kind of a data set and its path: the user's, or that of the LMDB that rule synthesize writes."""
    name, path = sources.source_of(config["datasets"][wildcards.dataset], f"<results>/data/{wildcards.dataset}_lmdb")
    return sources.SOURCES[name], path


def source_file(wildcards):
    """The file of a data set that must be there. A folder's own time does not tell of its files; see source_state."""
    source, path = source_of(wildcards)
    return ancient(path) if source.is_folder else source.file(path)


@functools.cache
def state_of(name, path):
    """What tells a data set's files from those that replace them, however old these are."""
    try:
        return json.dumps(sources.SOURCES[name].state(path))
    except (UserError, OSError):
        return ""  # it is still to come, or the job will say what is wrong with it


def source_state(wildcards):
    """That of a user's data set; one that is drawn Snakemake knows itself."""
    name, path = sources.source_of(config["datasets"][wildcards.dataset])
    return "" if sources.SOURCES[name].drawn else state_of(name, path)


def source_option(wildcards, input):
    """The option that names the data set."""
    source, _ = source_of(wildcards)
    return f"--{source.option} {shlex.quote(os.path.dirname(input[0]) if source.inside else str(input[0]))}"


def preprocess_options(wildcards):
    """What decides the images, beside the resolution."""
    dataset = config["datasets"][wildcards.dataset]
    options = f"--max-corrupt-fraction {dataset['max_corrupt_fraction']}"
    for key in ("max_images", "crop"):
        if dataset[key]:
            options += f" --{key.replace('_', '-')} {dataset[key]}"
    return f"{options} --synthetic" if dataset["synthetic"] else options


def download_options(dataset):
    """Address and checksum of a data set's zip, where they are not LSUN's."""
    url, digest = dataset["download"], dataset["download_digest"]
    options = "" if url == "lsun" else f"--url {shlex.quote(url)}"
    return f"{options} --digest {digest}" if digest else options


rule synthesize:
    output:
        "<results>/data/{dataset}_lmdb/data.mdb",
    log:
        "<logs>/synthesize/{dataset}.log",
    benchmark:
        "<benchmarks>/synthesize/{dataset}.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 16
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        kind=lambda wildcards: config["datasets"][wildcards.dataset]["synthetic"],
        n_images=lambda wildcards: config["datasets"][wildcards.dataset]["n_images"],
        seed=lambda wildcards: config["datasets"][wildcards.dataset]["seed"],
        folder=lambda wildcards, output: os.path.dirname(output[0]),
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} synthesize --kind {params.kind} --n-images {params.n_images} --seed {params.seed} "
        "--workers {threads} --output {params.folder:q} > {log:q} 2>&1"


# Where data sets say so in their key `download`. Rules of files that are there are not even defined: neither a change of
# the config or of this file nor --delete-all-output can then cost anyone 40 GB.
DOWNLOADS = {
    os.path.normpath(part["lmdb"]): dataset
    for dataset, part in config["datasets"].items()
    if part["download"] and not os.path.exists(os.path.join(part["lmdb"], "data.mdb"))
}

for folder, dataset in DOWNLOADS.items():

    rule:
        name:
            f"download_{dataset}"
        output:
            f"{folder}/data.mdb",
        log:
            f"<logs>/download/{dataset}.log",
        benchmark:
            f"<benchmarks>/download/{dataset}.tsv"
        # Nodes of a cluster often have no way out.
        localrule: True
        conda:
            "../../envs/data.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=2880,
        params:
            folder=folder,
            options=download_options(config["datasets"][dataset]),
            blurdiff=blurdiff,
        shell:
            "{params.blurdiff} download --output {params.folder:q} {params.options} > {log:q} 2>&1"


# How many jobs share the work on a data set. With one, it needs no parts.
PARTS = {dataset: part["parts"] for dataset, part in config["datasets"].items()}
IN_ONE = "|".join(re.escape(dataset) for dataset, n in PARTS.items() if n == 1) or "(?!)"
IN_PARTS = "|".join(re.escape(dataset) for dataset, n in PARTS.items() if n > 1) or "(?!)"


rule preprocess:
    input:
        source_file,
        unnoticed=unnoticed_data,
    output:
        images="<results>/data/{dataset}/images.npy",
        manifest="<results>/data/{dataset}/manifest.json",
    log:
        "<logs>/preprocess/{dataset}.log",
    benchmark:
        "<benchmarks>/preprocess/{dataset}.tsv"
    wildcard_constraints:
        dataset=IN_ONE,
    conda:
        "../../envs/data.yaml"
    threads: 16
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        resolution=config["resolution"],
        state=source_state,
        options=preprocess_options,
        label=lambda wildcards, threads: config["datasets"][wildcards.dataset]["label"],
        source=source_option,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} preprocess {params.source} --resolution {params.resolution} {params.options} "
        "--label {params.label:q} --workers {threads} --output {output.images:q} --manifest {output.manifest:q} "
        "> {log:q} 2>&1"


rule preprocess_part:
    input:
        source_file,
    output:
        images=temp("<results>/data/{dataset}/parts/{part}.npy"),
        manifest=temp("<results>/data/{dataset}/parts/{part}.json"),
    log:
        "<logs>/preprocess/{dataset}/{part}.log",
    benchmark:
        "<benchmarks>/preprocess/{dataset}/{part}.tsv"
    wildcard_constraints:
        dataset=IN_PARTS,
        part=r"\d+",
    conda:
        "../../envs/data.yaml"
    threads: 16
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        resolution=config["resolution"],
        state=source_state,
        options=preprocess_options,
        parts=lambda wildcards: PARTS[wildcards.dataset],
        label=lambda wildcards, threads: config["datasets"][wildcards.dataset]["label"],
        source=source_option,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} preprocess {params.source} --resolution {params.resolution} {params.options} "
        "--part {wildcards.part} --parts {params.parts} --label {params.label:q} --workers {threads} "
        "--output {output.images:q} --manifest {output.manifest:q} > {log:q} 2>&1"


rule join_parts:
    input:
        images=lambda wildcards: [
            f"<results>/data/{wildcards.dataset}/parts/{part}.npy" for part in range(PARTS[wildcards.dataset])
        ],
        manifests=lambda wildcards: [
            f"<results>/data/{wildcards.dataset}/parts/{part}.json" for part in range(PARTS[wildcards.dataset])
        ],
        unnoticed=unnoticed_data,
    output:
        images="<results>/data/{dataset}/images.npy",
        manifest="<results>/data/{dataset}/manifest.json",
    log:
        "<logs>/preprocess/{dataset}.log",
    benchmark:
        "<benchmarks>/preprocess/{dataset}.tsv"
    wildcard_constraints:
        dataset=IN_PARTS,
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
    params:
        state=source_state,
        fraction=lambda wildcards: config["datasets"][wildcards.dataset]["max_corrupt_fraction"],
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} join-parts --parts {input.images:q} --manifests {input.manifests:q} "
        "--max-corrupt-fraction {params.fraction} --output {output.images:q} --manifest {output.manifest:q} "
        "> {log:q} 2>&1"
