#compdef instancectl
# zsh completion of instancectl
_instancectl() {
    local line word
    local -a candidates suffix
    for line in "${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            '') ;;
            :files) _files ;;
            :dirs) _files -/ ;;
            *)
                word=${line%%$'\t'*}
                [[ $word == *[:=] ]] && suffix=(-S '')
                if [[ $line == *$'\t'* ]]; then
                    candidates+=("${word//:/\\:}:${line#*$'\t'}")
                else
                    candidates+=("${word//:/\\:}")
                fi
                ;;
        esac
    done
    (( ${#candidates} )) && _describe -V instancectl candidates "${suffix[@]}"
}
(( ${+functions[compdef]} )) && compdef _instancectl instancectl
