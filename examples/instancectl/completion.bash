# bash completion of instancectl
_instancectl() {
    local line=${COMP_LINE:0:COMP_POINT} candidate cut
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word=${words[${#words[@]}-1]}
    COMPREPLY=()
    compopt +o nospace
    while IFS= read -r candidate; do
        case $candidate in
            :files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "${word#*=}") ;;
            :dirs) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "${word#*=}") ;;
            *)
                candidate=${candidate%%$'\t'*}
                [[ $candidate == *[:=] ]] && compopt -o nospace
                # bash has cut the word at these, and wants what follows alone.
                cut=${word%"${word##*[:=]}"}
                COMPREPLY+=("${candidate#"$cut"}")
                ;;
        esac
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _instancectl instancectl
