# The paper's Table 1 and figures, other tables and figures, and the page with all results.


rule table:
    input:
        unpack(table_inputs),
    output:
        csv=report(
            "<results>/{table}.csv",
            caption="../report/table.rst",
            category=lambda wildcards: TABLES[wildcards.table].title,
        ),
        markdown="<results>/{table}.md",
    log:
        "<logs>/{table}.log",
    wildcard_constraints:
        table=tables_with(figure=False),
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        title=lambda wildcards, threads: TABLES[wildcards.table].title,
        caption=lambda wildcards, threads: TABLES[wildcards.table].caption,
        identity=table_identity,
        settings=table_settings,
        options=path_options,
        drawn=table_figure,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} table --name {wildcards.table} {params.options} --settings {params.settings:q} "
        "--output {output.csv:q} --markdown {output.markdown:q} {params.drawn} > {log:q} 2>&1"


# A table with a figure of the same.
use rule table as drawn_table with:
    output:
        csv=report(
            "<results>/{table}.csv",
            caption="../report/table.rst",
            category=lambda wildcards: TABLES[wildcards.table].title,
        ),
        markdown="<results>/{table}.md",
        shown=report(
            "<results>/figures/{table}.png",
            caption="../report/table.rst",
            category=lambda wildcards: TABLES[wildcards.table].title,
        ),
        pdf="<results>/figures/{table}.pdf",
        caption="<results>/figures/{table}.md",
    wildcard_constraints:
        table=tables_with(figure=True),
    resources:
        mem_mb=4000,
        runtime=30,


rule figure:
    input:
        unpack(figure_inputs),
    output:
        shown=report(
            "<results>/figures/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        pdf="<results>/figures/{figure}.pdf",
        caption="<results>/figures/{figure}.md",
    log:
        "<logs>/figures/{figure}.log",
    wildcard_constraints:
        figure=figures_as("png"),
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        identity=figure_identity,
        settings=figure_settings,
        title=figure_title,
        options=path_options,
        pdf=lambda wildcards, output: f"--pdf {shlex.quote(output.pdf)}" if "pdf" in output.keys() else "",
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} figure --name {wildcards.figure} --settings {params.settings:q} {params.options} "
        "--output {output.shown:q} {params.pdf} --caption {output.caption:q} > {log:q} 2>&1"


# A figure that moves.
use rule figure as animation with:
    output:
        shown=report(
            "<results>/figures/{figure}.webp",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        caption="<results>/figures/{figure}.md",
    wildcard_constraints:
        figure=figures_as("webp"),


SHOWN_DATA = dict.fromkeys(SETTINGS[run, SEEDS[0]].dataset for run in RUNS)


rule page:
    input:
        shown=expand("<results>/{file}", file=[file for exhibit in exhibits(config) for file in exhibit.files]),
        tables=expand("<results>/{table}.csv", table=MADE),
        samples=expand("<results>/runs/{run}/seed{seed}/samples.npz", run=RUNS, seed=SEEDS[0]),
        images=expand("<results>/data/{dataset}/images.npy", dataset=SHOWN_DATA),
        manifests=expand("<results>/data/{dataset}/manifest.json", dataset=SHOWN_DATA),
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        identity=lambda wildcards: [identity(settings) for settings in SETTINGS.values()],
        config=config_file,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} page --config {params.config:q} --output {output:q} > {log:q} 2>&1"
