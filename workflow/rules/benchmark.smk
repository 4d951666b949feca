# Not part of a run: every stage timed beside what a user would take instead, on the present device, with the network and
# batch of the config's first run. `snakemake benchmark`.


rule benchmark:
    input:
        weights=weights,
    output:
        csv="<results>/benchmark.csv",
        png=report("<results>/figures/benchmark.png", caption="../report/benchmark.rst", category="Benchmark"),
        pdf="<results>/figures/benchmark.pdf",
        caption="<results>/figures/benchmark.md",
    log:
        "<logs>/benchmark.log",
    conda:
        "../../envs/benchmark.yaml"
    # All of this machine's; on a cluster what its profile says (`workflow.cores` fails there).
    threads: workflow.resource_settings.cores or 1
    resources:
        mem_mb=16000,
        runtime=120,
        gpu=int(config["training"]["device"] == "cuda"),
    params:
        device=config["training"]["device"],
        settings=lambda wildcards, threads: settings_files(SETTINGS[RUNS[0], SEEDS[0]]),
        weights=weights_option,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} benchmark --device {params.device} --settings {params.settings:q} --threads {threads} "
        "{params.weights} --output {output.csv:q} --figure {output.png:q} > {log:q} 2>&1"
