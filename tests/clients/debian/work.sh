# SPDX-License-Identifier: MIT
# In the installed guest: a lease, a package from the repository on a disk, a program compiled here.
set -eu
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	ip -4 -o addr show scope global | grep -q dynamic && break
	sleep 1
done
ip -4 -o addr show scope global | grep 'inet 10\.0\.2\.15/24 .*dynamic'
ping -c 1 -W 10 10.0.2.2
mkdir -p /repository
mount -o ro LABEL=repository /repository
echo 'deb [trusted=yes] file:/repository ./' >/etc/apt/sources.list
apt-get -q update
apt-get -q -y install hello
hello | grep 'Hello, world!'
cat >/root/sum.c <<-END
	#include <stdio.h>
	#include <math.h>
	int main(void)
	{
		double sum = 0;
		for (int i = 1; i <= 1000000; i++)
			sum += 1.0 / i / i;
		printf("%.6f %zu\n", sum, sizeof(void *));
		return 0;
	}
END
# The sum of 1/n^2 up to n, as mathematics has it: pi^2/6 - 1/n + ...
gcc -O2 -o /root/sum /root/sum.c
[ "$(/root/sum)" = "1.644933 8" ]
gcc -m32 -O2 -o /root/sum32 /root/sum.c
[ "$(/root/sum32)" = "1.644933 4" ]
sync
