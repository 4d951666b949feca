# Images: an LSUN-format LMDB, the user's or a synthetic one, a folder or a zip, to one uint8 array a data set.


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
