# The workflow lies in workflow/; with this file, and the link profiles/ to its settings, `snakemake` runs it from here.
include: "workflow/Snakefile"


# An included file sets no default target.
rule default:
    default_target: True
    input:
        rules.all.input,
    localrule: True
