(function () {
  var select = document.getElementById("category");
  if (!select || select.options.length < 3) return;
  document.querySelector(".filter").hidden = false;
  select.addEventListener("change", function () {
    document.querySelectorAll("[data-category]").forEach(function (part) {
      part.hidden = select.value !== "" && part.getAttribute("data-category") !== select.value;
    });
  });
})();
