# The paper's Table 1 and figures, and other tables.


def figure_runs(wildcards):
    """The resolved settings of the runs that a figure shows: of each run its first seed."""
    return [SETTINGS[run, SEEDS[0]] for run in config["figures"][wildcards.figure]]


def figure_identity(wildcards):
    """What decides a figure, beside its files."""
    words = ["run", "dataset", "label", "synthetic", "seed", "resolution"]
    sections = FIGURES[wildcards.figure].sections
    return [identity(settings, *words, *sections) for settings in figure_runs(wildcards)]


def figure_settings(wildcards, threads):
    """The settings.json of the runs that a figure shows."""
    return settings_files(*figure_runs(wildcards))


def figure_title(wildcards, threads):
    """What the figure shows, for the report."""
    return FIGURES[wildcards.figure].title


def figure_inputs(wildcards):
    """The files that a figure is drawn from, by option: one path for each run."""
    return {
        option: [INPUTS[option].path.format(**run) for run in figure_runs(wildcards)]
        for option in FIGURES[wildcards.figure].inputs
    }


def figure_options(wildcards, input):
    """`--samples PATH … --images PATH …`."""
    return " ".join(f"--{option} {' '.join(map(shlex.quote, paths))}" for option, paths in input.items())


rule table:
    input:
        evaluations=expand("<results>/runs/{run}/seed{seed}/fid.json", run=RUNS, seed=SEEDS),
        studies=lambda wildcards: files_of_runs("samplers.csv", STUDIED if TABLES[wildcards.table].studies else []),
    output:
        csv=report(
            "<results>/{table}.csv",
            caption="../report/table.rst",
            category=lambda wildcards: TABLES[wildcards.table].title,
        ),
        markdown="<results>/{table}.md",
    log:
        "<logs>/{table}.log",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        title=lambda wildcards, threads: TABLES[wildcards.table].title,
        caption=lambda wildcards, threads: TABLES[wildcards.table].caption,
        settings=trained_settings,
        studies=lambda wildcards, input: "--studies" if input.studies else "",
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} table --name {wildcards.table} --evaluations {input.evaluations:q} {params.studies} "
        "{input.studies:q} --settings {params.settings:q} "
        "--output {output.csv:q} --markdown {output.markdown:q} > {log:q} 2>&1"


rule figure:
    input:
        unpack(figure_inputs),
    output:
        png=report(
            "<results>/figures/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        pdf="<results>/figures/{figure}.pdf",
        caption="<results>/figures/{figure}.md",
    log:
        "<logs>/figures/{figure}.log",
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
        options=figure_options,
        blurdiff=blurdiff,
    shell:
        "{params.blurdiff} figure --name {wildcards.figure} --settings {params.settings:q} {params.options} "
        "--output {output.png:q} --pdf {output.pdf:q} --caption {output.caption:q} > {log:q} 2>&1"
