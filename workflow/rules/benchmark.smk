# Not part of a run: what the process costs beside the network, on the present device. `snakemake benchmark`.


rule benchmark:
    output:
        "<results>/benchmark.csv",
    log:
        "<logs>/benchmark.log",
    conda:
        "../../envs/torch.yaml"
    threads: workflow.cores or 1
    resources:
        mem_mb=16000,
        runtime=120,
        gpu=int(config["training"]["device"] == "cuda"),
    params:
        device=config["training"]["device"],
        batch_size=128 if config["training"]["device"] == "cuda" else 8,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} benchmark --device {params.device} --batch-size {params.batch_size} --threads {threads} "
        "--output {output:q} > {log:q} 2>&1"
