# Images: an LSUN-format LMDB, the user's or a synthetic one, to one uint8 array a data set.


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


rule preprocess:
    input:
        lmdb_of,
    output:
        images="<results>/data/{dataset}/images.npy",
        manifest="<results>/data/{dataset}/manifest.json",
    log:
        "<logs>/preprocess/{dataset}.log",
    benchmark:
        "<benchmarks>/preprocess/{dataset}.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 16
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        resolution=config["resolution"],
        options=preprocess_options,
        label=lambda wildcards, threads: config["datasets"][wildcards.dataset]["label"],
        folder=lambda wildcards, input: os.path.dirname(input[0]),
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} preprocess --lmdb {params.folder:q} --resolution {params.resolution} {params.options} "
        "--label {params.label:q} --workers {threads} --output {output.images:q} --manifest {output.manifest:q} "
        "> {log:q} 2>&1"
