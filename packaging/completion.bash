# Completion of amlua's command line for bash: options, recipes, configuration files, and the
# sections of the configuration that was named.

_amlua() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} home script='' config='' i
    home=$(dirname "$(dirname "$(readlink -f "$(type -P "${COMP_WORDS[0]}")")")")/share/amlua
    [ -d "$home" ] || home=.
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        *.lua) script=${COMP_WORDS[i]} ;;
        *.yaml | *.yml) config=${COMP_WORDS[i]} ;;
        esac
    done
    compopt -o filenames 2>/dev/null
    if [ "$previous" = -e ] || [ "$previous" = --threads ] || [ "$previous" = --nproc-per-node ]; then
        return
    elif [ -z "$script" ] && [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '--threads --nproc-per-node --print-launch --version --info --help -e -i' -- "$word")
    elif [ -z "$script" ]; then
        mapfile -t COMPREPLY < <({
            compgen -f -X '!*.lua' -- "$word"
            compgen -d -- "$word"
            (cd "$home" 2>/dev/null && compgen -f -X '!*.lua' -- "$word")
        } | sort -u)
    elif [[ $word == --* ]]; then
        compopt +o filenames -o nospace 2>/dev/null
        mapfile -t COMPREPLY < <({
            if [ -r "$config" ]; then # top-level sections, as the beginning of --section.key
                sed -n 's/^\([A-Za-z_]*\):.*/--\1./p' "$config"
            fi
            printf '%s\n' --threads --nproc-per-node --print-launch --allow-user-code --help
        } | grep -F -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -F _amlua amlua
