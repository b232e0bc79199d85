# A tool in a shell, by `stdio: jsonl`: a job comes as a line of JSON, and so does its answer.
while read -r line; do
  case $line in
    '{"kind":"job"'*)
      id=${line#*'"id":"'} id=${id%%'"'*}
      printf '{"kind":"response","id":"%s","data":{"text":"it is %s."}}\n' "$id" "$(date +%H:%M)" ;;
  esac
done
