() => {
	// Ctrl-Enter, or Command-Enter, writes; in the box for changes it asks for them.
	document.addEventListener("keydown", (event) => {
		if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
		if (event.target.closest(".teach")) return;
		event.preventDefault();
		document.querySelector(event.target.closest("#carry-on") ? "#ask" : "#write").click();
	});
	// Screen readers say how the writing goes, without the figures that change all the time.
	for (const status of document.querySelectorAll(".status")) status.setAttribute("role", "status");
	// Gradio disables a box that only shows text, now and whenever it draws it again, and its copy button takes the
	// label: so neither the keyboard nor a screen reader would get to the answer.
	for (const box of document.querySelectorAll(".answer textarea")) {
		const open = () => {
			if (box.disabled) box.disabled = false;
		};
		open();
		new MutationObserver(open).observe(box, { attributeFilter: ["disabled"] });
		box.readOnly = true;
		box.setAttribute("aria-label", box.closest("label").querySelector("[data-testid=block-info]").textContent.trim());
	}
}
