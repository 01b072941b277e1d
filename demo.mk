# `make demo`: photographs in, a trained colorizer and its results out. Included by the Makefile.
# The commands also work for your own photographs. After an interruption, run it again to resume.

# One process per GPU, or one on a CPU. A power of two up to 8, which divides the recipe's batch.
NUM_PROCESSES = $(shell $(BIN)/python -c "import torch; \
	print(1 << min(3, max(1, torch.cuda.device_count()).bit_length() - 1))")
# accelerate prints a warning for each of these that is missing. The trainer chooses the precision.
LAUNCH_FLAGS = $(if $(filter-out 1,$(1)),--multi_gpu )--num_processes $(1) --num_machines 1 \
	--mixed_precision no --dynamo_backend no

.PHONY: demo
demo: $(VENV)/.installed-demo
	# sample photographs; some regions and one photograph are held out (val)
	$(BIN)/python -m data_prep.sample_photos --out out/demo/photos
	# shards of gray and color pairs; 143 px for crops of 128
	$(BIN)/python -m data_prep.make_shards --photos out/demo/photos/train \
		--out out/demo/shards --split train --short_side 143
	$(BIN)/python -m data_prep.make_shards --photos out/demo/photos/val \
		--out out/demo/shards --split val --short_side 143
	# train: minutes on two CPU cores; the encoder's weights come with a package, not from the
	# network; Ctrl-C saves, make demo resumes
	$(BIN)/accelerate launch \
		$(call LAUNCH_FLAGS,$(NUM_PROCESSES)) \
		scripts/train.py --config recipes/demo.yaml \
		--shards out/demo/shards --run_dir runs/demo
	@$(MAKE) --no-print-directory -f $(firstword $(MAKEFILE_LIST)) \
		out/demo/report.json out/demo/contact_sheet.png
	@echo
	@echo "contact sheet  out/demo/contact_sheet.png"
	@echo "report         out/demo/report.json"
	@echo "checkpoint     $$(ls -d runs/demo/checkpoints/step_* | tail -n 1)"
	@echo "curves         $(BIN)/tensorboard --logdir runs/demo"

# Built by a second make, which sees the checkpoints that the training has just written.
out/demo/report.json: $(wildcard runs/demo/checkpoints/step_*)
	# evaluate on the held-out photographs
	$(BIN)/python scripts/evaluate.py --run_dir runs/demo \
		--shards out/demo/shards --split val --out out/demo/report.json

out/demo/contact_sheet.png: $(wildcard runs/demo/checkpoints/step_*)
	# color the held-out photographs, and photographs captured in gray
	$(BIN)/python scripts/colorize.py --run_dir runs/demo \
		--photos out/demo/photos/val --out out/demo/colorized/val
	$(BIN)/python scripts/colorize.py --run_dir runs/demo \
		--photos out/demo/photos/gray --out out/demo/colorized/gray
	$(BIN)/python scripts/contact_sheet.py --photos out/demo/photos \
		--colorized out/demo/colorized --out out/demo/contact_sheet.png

# The folder names say which photographs the training saw; the labels show them.
.PHONY: picture
picture: demo
	# the picture of README.md: only photographs in the public domain or under CC0
	mkdir -p "out/demo/pictured/learned from" "out/demo/pictured/never seen"
	for name in astronaut coffee; do cp out/demo/photos/train/$$name-00.png \
		"out/demo/pictured/learned from/$$name.png"; done
	cp out/demo/photos/val/astronaut.png out/demo/photos/val/chelsea.png \
		"out/demo/pictured/never seen"
	$(BIN)/python scripts/colorize.py --run_dir runs/demo \
		--photos out/demo/pictured --out out/demo/colorized/pictured
	$(BIN)/python scripts/contact_sheet.py --photos out/demo/pictured \
		--colorized out/demo/colorized/pictured --out docs/images/demo.webp
