# A bar for each stop, from its first to its last departure.
BEGIN { FS = "," }
NR > 1 {
  split($2, first, ":"); split($3, last, ":")
  from = first[1] * 2; to = last[1] * 2
  if (to < from) to += 48
  bar = ""
  for (i = 0; i < 52; i++) bar = bar (i >= from && i <= to ? "#" : ".")
  printf "%-12s %s\n", $1, bar
}
