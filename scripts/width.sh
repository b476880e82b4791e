#!/bin/bash
# Fails when a line is wider than 120 columns; a tab counts as 4. Markdown tables, test data and generated files are
# exempt.
set -euo pipefail
cd "$(dirname "$0")/.."

find . \( -name .git -o -name .cache -o -name node_modules -o -name testdata -o -path ./bin -o -path ./dist \) -prune \
	-o -type f \( -name '*.go' -o -name '*.md' -o -name '*.sh' -o -name '*.sql' -o -name '*.y*ml' -o -name '*.xml' \
	-o -name Makefile -o -path '*/bench/*/run' \) -print0 |
	xargs -0 perl -CSD -ne '
		$generated = 0 if $. == 1;
		$generated = 1 if $. <= 5 && /Code generated .* DO NOT EDIT/;
		next if $generated || ($ARGV =~ /\.md$/ && /^ *\|/);
		chomp;
		s/\t/    /g;
		if (length > 120) { print "$ARGV:$.: ", length, " columns; at most 120\n"; $wide = 1 }
	} continue {
		close ARGV if eof;
	} END {
		$? = $wide ? 1 : 0;'
